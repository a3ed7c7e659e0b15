# The stack's numbers, names and counts, with a mocked provider. Policies are tested in tests/terraform,
# because the mock doesn't compute policy documents.

mock_provider "aws" {
  mock_data "aws_caller_identity" {
    defaults = { account_id = "123456789012" }
  }

  mock_data "aws_partition" {
    defaults = { partition = "aws", dns_suffix = "amazonaws.com" }
  }

  mock_data "aws_region" {
    defaults = { id = "us-isof-south-1" } # the longest
  }

  mock_data "aws_iam_policy_document" {
    defaults = { json = "{}" }
  }

  override_resource {
    target          = aws_sqs_queue.rejected
    values          = { url = "https://sqs/rejected" }
    override_during = plan
  }
}

variables {
  ddg_api_key = "X"
  ddg_app_key = "X"
}

run "defaults" {
  command = plan

  assert {
    condition = {
      visibility    = aws_sqs_queue.stats.visibility_timeout_seconds
      receives      = local.max_receive_count
      retention     = aws_sqs_queue.stats.message_retention_seconds
      dead_letters  = aws_sqs_queue.dead_letter.message_retention_seconds
      rejected      = aws_sqs_queue.rejected.message_retention_seconds
      batch_size    = aws_lambda_event_source_mapping.metric_submit.batch_size
      batch_window  = aws_lambda_event_source_mapping.metric_submit.maximum_batching_window_in_seconds
      timeout       = aws_lambda_function.metric_submit.timeout
      force_destroy = aws_s3_bucket.stats[0].force_destroy
      mails         = length(aws_sns_topic_subscription.alarm_email)
      schedule      = aws_cloudwatch_event_rule.mock_schedule[0].schedule_expression
      retries       = aws_lambda_function_event_invoke_config.mock_datasource[0].maximum_retry_attempts
      } == {
      visibility    = 180
      receives      = 20        # an hour, with 180 s of visibility
      retention     = 4 * 86400 # a file waits for up to 4 days
      dead_letters  = 14 * 86400
      rejected      = 14 * 86400 # as long as SQS can
      batch_size    = 10
      batch_window  = 0 # each file is sent at once
      timeout       = 30
      force_destroy = true # so that destroy works although there are files
      mails         = 0    # without alarm_email
      schedule      = "rate(1 minute)"
      retries       = 0 # it would write a second file
    }
    error_message = "These are the defaults' numbers."
  }

  assert {
    condition     = alltrue([for queue in [aws_sqs_queue.stats, aws_sqs_queue.dead_letter, aws_sqs_queue.rejected] : queue.sqs_managed_sse_enabled])
    error_message = "SQS encrypts each queue itself: with an AWS-managed KMS key S3 couldn't send."
  }

  assert {
    condition     = alltrue([for function in [aws_lambda_function.metric_submit, aws_lambda_function.mock_datasource[0]] : function.runtime == "python3.13" && function.architectures == tolist(["arm64"]) && coalesce(function.reserved_concurrent_executions, -1) == -1])
    error_message = "Python 3.13 on arm64, no reserved concurrency: a new account has 10 in all."
  }

  assert {
    condition     = aws_lambda_event_source_mapping.metric_submit.function_response_types == toset(["ReportBatchItemFailures"])
    error_message = "Without ReportBatchItemFailures the failed files of a batch are deleted with the rest."
  }

  assert {
    condition = { for key, alarm in aws_cloudwatch_metric_alarm.pipeline : key => "${alarm.namespace} ${alarm.metric_name} ${alarm.statistic} of ${join(",", values(alarm.dimensions))} > ${alarm.threshold}, ${alarm.evaluation_periods} x ${alarm.period} s" } == {
      files-rejected            = "AWS/SQS ApproximateNumberOfMessagesVisible Maximum of ddg-stats-rejected > 0, 1 x 60 s"
      dead-letters              = "AWS/SQS ApproximateNumberOfMessagesVisible Maximum of ddg-stats-dead-letter > 0, 1 x 60 s"
      rejected-expiring         = "AWS/SQS ApproximateAgeOfOldestMessage Maximum of ddg-stats-rejected > 864000, 1 x 300 s"
      dead-letters-expiring     = "AWS/SQS ApproximateAgeOfOldestMessage Maximum of ddg-stats-dead-letter > 864000, 1 x 300 s"
      files-waiting             = "AWS/SQS ApproximateAgeOfOldestMessage Maximum of ddg-stats-stats > 300, 3 x 60 s"
      files-retried             = "DatadogStats Retried Sum of ddg-stats-metric-submit > 0, 3 x 300 s"
      metric-submit-errors      = "AWS/Lambda Errors Sum of ddg-stats-metric-submit > 0, 1 x 300 s"
      metric-submit-throttles   = "AWS/Lambda Throttles Sum of ddg-stats-metric-submit > 0, 1 x 300 s"
      mock-datasource-errors    = "AWS/Lambda Errors Sum of ddg-stats-mock-datasource > 0, 1 x 300 s"
      mock-datasource-throttles = "AWS/Lambda Throttles Sum of ddg-stats-mock-datasource > 0, 1 x 300 s"
    }
    error_message = "These alarms watch the queues, retries and both functions."
  }

  assert {
    condition     = alltrue([for alarm in aws_cloudwatch_metric_alarm.pipeline : alarm.treat_missing_data == "notBreaching" && alarm.comparison_operator == "GreaterThanThreshold"])
    error_message = "An idle queue or function reports nothing, which is no alarm."
  }

  assert {
    condition     = [for alarm in aws_cloudwatch_metric_alarm.nothing_submitted : "${alarm.metric_name} ${alarm.statistic} of ${alarm.dimensions.Job} ${alarm.comparison_operator} ${alarm.threshold}, ${alarm.evaluation_periods} x ${alarm.period} s, ${alarm.treat_missing_data}"] == ["Submitted Sum of mock-datasource LessThanThreshold 1, 3 x 300 s, breaching"]
    error_message = "The generator's silence is an alarm, and a missing metric is silence."
  }
}

run "everything_else_than_default" {
  command = plan

  variables {
    name                  = "abcdefghijklmnopqrstuvwx"
    ddg_app_key           = null
    ddg_site              = "us5.datadoghq.com"
    stats_prefix          = "jobs/of/mine/"
    max_age_seconds       = 9999999999
    constant_tags         = ["env:prod", "team:data"]
    file_retention_days   = 15
    log_retention_days    = 365
    batch_size            = 1000
    batch_window          = 300
    maximum_concurrency   = 1000
    memory_size           = 1024
    mock_interval_minutes = 1440
    alarm_email           = "oncall@example.com"
    force_destroy         = false
  }

  assert {
    condition     = length(aws_s3_bucket.stats[0].bucket) <= 63 && alltrue([for role in [aws_iam_role.metric_submit, aws_iam_role.mock_datasource[0]] : length(role.name) <= 64])
    error_message = "Even with the longest name and region, S3 and IAM accept the names."
  }

  assert {
    condition     = aws_sqs_queue.stats.visibility_timeout_seconds >= 6 * aws_lambda_function.metric_submit.timeout + aws_lambda_event_source_mapping.metric_submit.maximum_batching_window_in_seconds
    error_message = "AWS asks for six times the function's timeout, and the window."
  }

  assert {
    condition     = local.alarms.files-waiting.above < 2 * aws_sqs_queue.stats.visibility_timeout_seconds
    error_message = "The alarm must see a message before its third receive, after which SQS doesn't count its age."
  }

  assert {
    condition = aws_lambda_function.metric_submit.environment[0].variables == tomap({
      BUCKETS            = "{}"
      CONSTANT_TAGS      = "env:prod,team:data"
      DATADOG_API_KEY    = "X"
      DATADOG_HOST       = "https://api.us5.datadoghq.com"
      JOBS               = base64gzip("{\"mock-datasource\":{\"watched\":true}}")
      MAX_AGE_SECONDS    = "9999999999"
      REJECTED_QUEUE_URL = "https://sqs/rejected"
      STATS_PREFIX       = "jobs/of/mine/"
    })
    error_message = "The submitter gets each setting, and no variable for a key that isn't given."
  }

  assert {
    condition = {
      bucket        = aws_s3_bucket.stats[0].bucket
      force_destroy = aws_s3_bucket.stats[0].force_destroy
      receives      = local.max_receive_count
      prefixes      = [aws_lambda_function.mock_datasource[0].environment[0].variables.STATS_PREFIX, aws_s3_bucket_notification.stats[0].queue[0].filter_prefix]
      files         = aws_s3_bucket_lifecycle_configuration.stats[0].rule[0].expiration[0].days
      uploads       = aws_s3_bucket_lifecycle_configuration.stats[0].rule[1].abort_incomplete_multipart_upload[0].days_after_initiation
      logs          = [for group in [aws_cloudwatch_log_group.metric_submit, aws_cloudwatch_log_group.mock_datasource[0]] : group.retention_in_days]
      concurrency   = aws_lambda_event_source_mapping.metric_submit.scaling_config[0].maximum_concurrency
      memory        = aws_lambda_function.metric_submit.memory_size
      mail          = aws_sns_topic_subscription.alarm_email[0].endpoint
      schedule      = aws_cloudwatch_event_rule.mock_schedule[0].schedule_expression
      silence       = aws_cloudwatch_metric_alarm.nothing_submitted[0].period
      } == {
      bucket        = "abcdefghijklmnopqrstuvwx-123456789012-us-isof-south-1"
      force_destroy = false
      receives      = 1000 # SQS's maximum
      prefixes      = ["jobs/of/mine/", "jobs/of/mine/"]
      files         = 15
      uploads       = 1
      logs          = [365, 365]
      concurrency   = 1000
      memory        = 1024
      mail          = "oncall@example.com"
      schedule      = "rate(1440 minutes)"
      silence       = 86400 # CloudWatch's maximum for three periods
    }
    error_message = "These resources get the settings."
  }
}

run "others_buckets_alone" {
  command = plan

  variables {
    create_bucket = false
    buckets = {
      acme-data   = { prefix = "a b/c=/" }
      acme-abroad = { prefix = "", account_id = "210987654321", kms_key_arn = "arn:aws:kms:us-isof-south-1:210987654321:key/k" }
      acme-direct = { notify = "s3", prefix = "a b/c=/" }
      acme-topic  = { topic_arn = "arn:aws:sns:us-isof-south-1:123456789012:uploads" }
      acme-topic2 = { topic_arn = "arn:aws:sns:us-isof-south-1:210987654321:uploads" }
      acme-topic3 = { topic_arn = "arn:aws:sns:us-isof-south-1:210987654321:uploads" }

      o23456789-123456789-123456789-123456789-123456789-123456789-123 = {}
    }
  }

  assert {
    condition = {
      own     = concat(aws_s3_bucket.stats, aws_lambda_function.mock_datasource, aws_cloudwatch_metric_alarm.nothing_submitted)
      outputs = [for own in [output.bucket, output.prefix, output.producer_policy_json] : own == null]
      alarms  = length(output.alarm_names)
      upload  = strcontains(output.upload_command, "\"s3://acme-abroad/my-job/")
      topics  = [for topic, one in aws_sns_topic_subscription.bucket : [topic, one.raw_message_delivery, one.filter_policy == null]]
      } == {
      own     = []
      outputs = [true, true, true]
      alarms  = 8 # none for silence: nobody knows how often others' jobs write
      upload  = true
      topics  = [["arn:aws:sns:us-isof-south-1:123456789012:uploads", true, true], ["arn:aws:sns:us-isof-south-1:210987654321:uploads", true, true]]
    }
    error_message = "The stack makes no bucket or generator, and one subscription for each topic."
  }

  assert {
    condition = { for rule in aws_cloudwatch_event_rule.bucket : rule.name => jsondecode(rule.event_pattern).detail } == {
      "ddg-stats.acme-data"   = { bucket = { name = ["acme-data"] }, object = { key = [{ prefix = "a b/c=/" }, { prefix = "a%20b/c%3D/" }] } }
      "ddg-stats.acme-abroad" = { bucket = { name = ["acme-abroad"] } }

      "ddg-stats.o23456789-123456789-123456789-123456789-12345.846ab77a" = { bucket = { name = ["o23456789-123456789-123456789-123456789-123456789-123456789-123"] }, object = { key = [{ prefix = "stats/" }] } }
    }
    error_message = "A rule matches one bucket and one prefix, encoded or not, and its name has at most 64 characters."
  }

  assert {
    condition = { for name, steps in output.bucket_steps : name => concat([for text in ["{EventBridgeConfiguration", "\"Value\":\"a+b/c%3D/\"", "put-targets", "sns add-permission"] : strcontains(coalesce(steps.notify, "-"), text)], [steps.bucket_policy != null, steps.key_policy != null]) if length(name) < 20 } == {
      acme-data   = [true, false, false, false, false, false]
      acme-abroad = [true, false, true, false, true, true]
      acme-direct = [false, true, false, false, false, false] # S3 wants the prefix encoded
      acme-topic  = [false, false, false, false, false, false]
      acme-topic2 = [false, false, false, true, false, false]
      acme-topic3 = [false, false, false, true, false, false]
    }
    error_message = "The owner's steps depend on how the bucket notifies, and on its account."
  }

  assert {
    condition     = [for statement in jsondecode(output.bucket_steps["acme-abroad"].producer_policy).Statement : [statement.Action, statement.Resource]] == [["s3:PutObject", "arn:aws:s3:::acme-abroad/*"], ["kms:GenerateDataKey", "arn:aws:kms:us-isof-south-1:210987654321:key/k"]]
    error_message = "A job may write below the prefix, and encrypt what it writes."
  }
}

run "forty_jobs" {
  command = plan

  variables {
    metric_prefix = "etl."
    metrics = {
      "etl.processed.data" = { type = "count", interval = "86400", unit = "row", monitor = { kind = "anomaly" } }
      "etl.runs"           = { type = "count" }
      "etl.seconds"        = { type = "gauge", unit = "second" }
    }
    jobs = merge({ unmapped = {} }, {
      for number in range(40) : "${substr(sha256(number), 0, 8)}-job" => { mapping = "${substr(sha256("a${number}"), 0, 12)}[*].{timestamp: ${substr(sha256("b${number}"), 0, 9)}, tags: {${substr(sha256("c${number}"), 0, 8)}: id}, seconds: duration}" }
    })
  }

  assert {
    condition = { for name, value in aws_lambda_function.metric_submit.environment[0].variables : name => value if contains(["JOBS", "METRICS", "METRIC_PREFIX"], name) } == {
      JOBS          = base64gzip(jsonencode(merge({ for job, known in var.jobs : job => known if job != "unmapped" }, { mock-datasource = { watched = true } })))
      METRICS       = base64gzip(jsonencode({ "etl.processed.data" = { interval = 86400, type = "count" }, "etl.runs" = { type = "count" } }))
      METRIC_PREFIX = "etl."
    }
    error_message = "The submitter gets mappings and counts, and nothing that only others need."
  }
}

run "environment_too_large" {
  command = plan

  variables {
    jobs = { for number in range(60) : sha256(number) => { mapping = "{timestamp: ${substr(sha256("a${number}"), 0, 32)}}" } }
  }

  override_resource {
    target          = aws_sqs_queue.rejected
    values          = { url = null }
    override_during = apply # as on the first plan, when its URL isn't known
  }

  expect_failures = [aws_lambda_function.metric_submit]
}

run "another_partition" {
  command = plan

  variables {
    iam_role_path = "/teams/data/"
    buckets       = { acme-abroad = { account_id = "210987654321" } }
  }

  override_data {
    target = data.aws_partition.current
    values = { partition = "aws-cn", dns_suffix = "amazonaws.com.cn" }
  }

  assert {
    condition     = startswith(output.dashboard_url, "https://us-isof-south-1.console.amazonaws.cn/") && local.alarm_arn == "arn:aws-cn:cloudwatch:us-isof-south-1:123456789012:alarm:"
    error_message = "The console's address and the alarms' ARNs are the partition's own."
  }

  assert {
    condition     = length(regexall("arn:aws:", join("", [output.kms_key_statements, output.bucket_steps["acme-abroad"].notify, output.bucket_steps["acme-abroad"].bucket_policy, local.bucket_arn, local.topic_arn, join("", values(local.queue_arns))]))) == 0
    error_message = "No ARN is of another partition."
  }

  assert {
    condition = [for statement in jsondecode(output.kms_key_statements) : try(statement.Principal.AWS, statement.Principal.Service)] == [
      "arn:aws-cn:iam::123456789012:root",
      ["cloudwatch.amazonaws.com", "events.amazonaws.com", "s3.amazonaws.com", "sns.amazonaws.com"],
      "logs.us-isof-south-1.amazonaws.com.cn",
      ] && jsondecode(output.kms_key_statements)[0].Condition.ArnEquals["aws:PrincipalArn"] == [
      "arn:aws-cn:iam::123456789012:role/teams/data/ddg-stats-metric-submit-us-isof-south-1",
      "arn:aws-cn:iam::123456789012:role/teams/data/ddg-stats-mock-datasource-us-isof-south-1",
    ]
    error_message = "The functions' roles, with their path, and the sending services may use the key."
  }
}

run "heartbeat_in_place_of_the_generator" {
  command = plan

  variables {
    mock_datasource_enabled = false
    heartbeat_schedule      = "rate(2 hours)"
    stats_prefix            = "jobs/"
    max_age_seconds         = 0
    log_files               = false

    jobs = {
      nightly = { silent_after_hours = 26 }
      "a b*"  = { silent_after_hours = "167", mapping = "numbers(@)" }
    }
  }

  assert {
    condition = {
      heartbeat = aws_lambda_function.mock_datasource[0].environment[0].variables.HEARTBEAT
      schedule  = aws_cloudwatch_event_rule.mock_schedule[0].schedule_expression
      place     = strcontains(aws_lambda_function.mock_datasource[0].description, "/jobs/heartbeat/.")
      logs      = aws_lambda_function.metric_submit.environment[0].variables.LOG_FILES
      jobs      = aws_lambda_function.metric_submit.environment[0].variables.JOBS
      functions = jsonencode([output.function_names.mock_datasource, output.function_names.heartbeat, output.log_groups.mock_datasource, output.log_groups.heartbeat, output.schedule_rule])
      watched   = output.watched_jobs
      receives  = local.max_receive_count
      } == {
      heartbeat = "true"
      schedule  = "rate(2 hours)"
      place     = true
      logs      = "false"
      jobs      = base64gzip(jsonencode({ "a b*" = { mapping = "numbers(@)", watched = true }, heartbeat = { watched = true }, nightly = { watched = true } }))
      functions = jsonencode([null, "ddg-stats-mock-datasource", null, "/aws/lambda/ddg-stats-mock-datasource", "ddg-stats-mock-datasource"])
      watched   = { "a b*" = 167, nightly = 26 }
      receives  = 20 # for an hour, also without a limit of age
    }
    error_message = "The generator's function writes a heartbeat, and the submitter knows the watched jobs."
  }

  assert {
    condition     = [for alarm in aws_cloudwatch_metric_alarm.nothing_submitted : "${alarm.metric_name} of ${alarm.dimensions.Job} of ${alarm.dimensions.FunctionName}, ${alarm.evaluation_periods} x ${alarm.period} s"] == ["Submitted of heartbeat of ddg-stats-metric-submit, 3 x 7200 s"]
    error_message = "The heartbeat's silence is an alarm, even if other jobs write."
  }

  assert {
    condition = { for alarm in aws_cloudwatch_metric_alarm.job_silent : alarm.alarm_name => [for query in alarm.metric_query : query.expression == null ? "${query.metric[0].namespace} ${query.metric[0].metric_name} ${query.metric[0].stat} of ${query.metric[0].dimensions.Job} of ${query.metric[0].dimensions.FunctionName}, ${alarm.evaluation_periods} x ${query.metric[0].period} s" : "${query.expression} ${alarm.comparison_operator} ${alarm.threshold}, ${alarm.treat_missing_data}"] } == {
      "ddg-stats-job-silent-a b*"    = ["FILL(submitted, 0) LessThanThreshold 1, breaching", "DatadogStats Submitted Sum of a b* of ddg-stats-metric-submit, 167 x 3600 s"]
      "ddg-stats-job-silent-nightly" = ["FILL(submitted, 0) LessThanThreshold 1, breaching", "DatadogStats Submitted Sum of nightly of ddg-stats-metric-submit, 26 x 3600 s"]
    }
    error_message = "So many hours without the job's files are an alarm; an hour without data is 0, otherwise CloudWatch looks back further."
  }
}

run "nothing_on_schedule" {
  command = plan

  variables {
    mock_datasource_enabled = false
    heartbeat_schedule      = null
  }

  assert {
    condition = concat(
      aws_cloudwatch_event_rule.mock_schedule, aws_cloudwatch_event_target.mock_schedule, aws_cloudwatch_log_group.mock_datasource,
      aws_iam_role.mock_datasource, aws_iam_role_policy.mock_datasource, aws_lambda_function.mock_datasource,
      aws_lambda_function_event_invoke_config.mock_datasource, aws_lambda_permission.mock_schedule, aws_cloudwatch_metric_alarm.nothing_submitted,
    ) == [] && length(aws_cloudwatch_metric_alarm.pipeline) == 8
    error_message = "There is no generator, and no alarm for silence."
  }

  assert {
    condition     = [for name in values(output.function_names) : name if name != null] == ["ddg-stats-metric-submit"] && output.schedule_rule == null && !contains(keys(aws_lambda_function.metric_submit.environment[0].variables), "JOBS")
    error_message = "The outputs don't name a generator, and no job is watched."
  }
}

run "secret_in_place_of_the_keys" {
  command = plan

  variables {
    ddg_api_key            = null
    ddg_app_key            = null
    ddg_api_key_secret_arn = "arn:aws:secretsmanager:us-east-1:123456789012:secret:datadog-AbCdEf"
  }

  assert {
    condition     = [for name, value in aws_lambda_function.metric_submit.environment[0].variables : value if startswith(name, "DATADOG_API_KEY")] == [var.ddg_api_key_secret_arn]
    error_message = "The submitter gets the secret's ARN instead of the key."
  }
}

run "neither_keys_nor_secret" {
  command = plan

  variables {
    ddg_api_key = null
    ddg_app_key = null
  }

  expect_failures = [aws_lambda_function.metric_submit]
}

run "keys_and_secret" {
  command = plan

  variables {
    ddg_api_key_secret_arn = "arn:aws:secretsmanager:us-east-1:123456789012:secret:datadog-AbCdEf"
  }

  expect_failures = [aws_lambda_function.metric_submit]
}
