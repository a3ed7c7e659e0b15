# What the stack is made of, without a provider's doing: numbers, names, counts.
# The mocked provider invents policy documents; those are tested on what Terraform really made.

mock_provider "aws" {
  mock_data "aws_caller_identity" {
    defaults = { account_id = "123456789012" }
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
    condition     = aws_s3_bucket.stats.bucket == "ddg-stats-123456789012-us-east-1"
    error_message = "The bucket is <name>-<account>-<region>."
  }

  assert {
    condition     = aws_lambda_function.metric_submit.timeout <= 30
    error_message = "A batch is at most 30 seconds at work."
  }

  assert {
    condition     = aws_sqs_queue.stats.visibility_timeout_seconds == 180 && local.max_receive_count == 20
    error_message = "180 s of visibility and 20 receives make an hour."
  }

  assert {
    condition     = aws_sqs_queue.stats.message_retention_seconds == 4 * 86400
    error_message = "A file waits for up to 4 days."
  }

  assert {
    condition     = aws_sqs_queue.dead_letter.message_retention_seconds == 14 * 86400 && aws_sqs_queue.rejected.message_retention_seconds == 14 * 86400
    error_message = "Dead letters and refused files are kept for 14 days, as long as SQS can."
  }

  assert {
    condition     = alltrue([for queue in [aws_sqs_queue.stats, aws_sqs_queue.dead_letter, aws_sqs_queue.rejected] : queue.sqs_managed_sse_enabled])
    error_message = "Each queue is encrypted by SQS itself: under an AWS-managed KMS key S3 couldn't send."
  }

  assert {
    condition     = alltrue([for function in [aws_lambda_function.metric_submit, aws_lambda_function.mock_datasource[0]] : function.runtime == "python3.13" && function.architectures == tolist(["arm64"]) && coalesce(function.reserved_concurrent_executions, -1) == -1])
    error_message = "Python 3.13 on arm64, no reserved concurrency: a new account has 10 in all."
  }

  assert {
    condition     = aws_lambda_event_source_mapping.metric_submit.batch_size == 10 && aws_lambda_event_source_mapping.metric_submit.maximum_batching_window_in_seconds == 0
    error_message = "By default each file is sent at once."
  }

  assert {
    condition     = aws_lambda_event_source_mapping.metric_submit.function_response_types == toset(["ReportBatchItemFailures"])
    error_message = "Without ReportBatchItemFailures the failed files of a batch are deleted with the rest."
  }

  assert {
    condition     = aws_lambda_function_event_invoke_config.mock_datasource[0].maximum_retry_attempts == 0
    error_message = "A retry of the generator would write a second file."
  }

  assert {
    condition     = aws_s3_bucket.stats.force_destroy
    error_message = "destroy works the moment after files arrived."
  }

  assert {
    condition = aws_lambda_function.metric_submit.environment[0].variables == tomap({
      CONSTANT_TAGS      = ""
      DATADOG_API_KEY    = "X"
      DATADOG_APP_KEY    = "X"
      DATADOG_HOST       = "https://api.datadoghq.com"
      MAX_AGE_SECONDS    = "3600"
      REJECTED_QUEUE_URL = "https://sqs/rejected"
      STATS_PREFIX       = "stats/"
    })
    error_message = "The submitter's environment holds the keys and the settings, and nothing else."
  }

  assert {
    condition     = length(aws_sns_topic_subscription.alarm_email) == 0
    error_message = "Nobody is mailed unless alarm_email says whom."
  }

  assert {
    condition = { for key, alarm in aws_cloudwatch_metric_alarm.pipeline : key => "${alarm.metric_name} ${alarm.statistic} of ${join(",", values(alarm.dimensions))} > ${alarm.threshold}, ${alarm.evaluation_periods} x ${alarm.period} s" } == {
      files-rejected            = "ApproximateNumberOfMessagesVisible Maximum of ddg-stats-rejected > 0, 1 x 60 s"
      dead-letters              = "ApproximateNumberOfMessagesVisible Maximum of ddg-stats-dead-letter > 0, 1 x 60 s"
      rejected-expiring         = "ApproximateAgeOfOldestMessage Maximum of ddg-stats-rejected > 864000, 1 x 300 s"
      dead-letters-expiring     = "ApproximateAgeOfOldestMessage Maximum of ddg-stats-dead-letter > 864000, 1 x 300 s"
      files-waiting             = "ApproximateAgeOfOldestMessage Maximum of ddg-stats-stats > 300, 3 x 60 s"
      files-retried             = "Retried Sum of ddg-stats-metric-submit > 0, 3 x 300 s"
      metric-submit-errors      = "Errors Sum of ddg-stats-metric-submit > 0, 1 x 300 s"
      metric-submit-throttles   = "Throttles Sum of ddg-stats-metric-submit > 0, 1 x 300 s"
      mock-datasource-errors    = "Errors Sum of ddg-stats-mock-datasource > 0, 1 x 300 s"
      mock-datasource-throttles = "Throttles Sum of ddg-stats-mock-datasource > 0, 1 x 300 s"
    }
    error_message = "What is kept, what waits, what is retried, and each function: an alarm each, and at these numbers."
  }

  assert {
    condition     = alltrue([for alarm in aws_cloudwatch_metric_alarm.pipeline : alarm.treat_missing_data == "notBreaching" && alarm.comparison_operator == "GreaterThanThreshold"])
    error_message = "A queue or a function that is idle reports nothing, and that is no alarm."
  }

  assert {
    condition     = [for alarm in aws_cloudwatch_metric_alarm.nothing_submitted : "${alarm.metric_name} ${alarm.statistic} ${alarm.comparison_operator} ${alarm.threshold}, ${alarm.evaluation_periods} x, ${alarm.treat_missing_data}"] == ["Submitted Sum LessThanThreshold 1, 3 x, breaching"]
    error_message = "Silence is an alarm while the generator is on, and no summary at all is silence."
  }

  assert {
    condition     = aws_cloudwatch_metric_alarm.nothing_submitted[0].period == 300
    error_message = "A period of the silence alarm is never under 5 minutes."
  }
}

run "everything_else_than_default" {
  command = plan

  variables {
    name                = "abcdefghijklmnopqrstuvwx"
    aws_region          = "us-isof-south-1"
    ddg_app_key         = null
    ddg_site            = "us5.datadoghq.com"
    stats_prefix        = "jobs/of/mine/"
    max_age_seconds     = 0
    constant_tags       = ["env:prod", "team:data"]
    file_retention_days = 15
    log_retention_days  = 365
    batch_size          = 1000
    batch_window        = 300
    maximum_concurrency = 1000
    memory_size         = 1024
    mock_schedule       = "rate(2 hours)"
    alarm_email         = "oncall@example.com"
    force_destroy       = false
  }

  assert {
    condition     = length(aws_s3_bucket.stats.bucket) <= 63
    error_message = "The longest name, account and region make a name that S3 takes."
  }

  assert {
    condition     = alltrue([for role in [aws_iam_role.metric_submit, aws_iam_role.mock_datasource[0]] : length(role.name) <= 64])
    error_message = "The longest name and region make a name that IAM takes."
  }

  assert {
    condition     = aws_sqs_queue.stats.visibility_timeout_seconds >= 6 * aws_lambda_function.metric_submit.timeout + aws_lambda_event_source_mapping.metric_submit.maximum_batching_window_in_seconds
    error_message = "AWS wants six times the function's timeout and the window."
  }

  assert {
    condition     = local.max_receive_count * aws_sqs_queue.stats.visibility_timeout_seconds >= 3600 && local.max_receive_count >= 5
    error_message = "Nothing is a dead letter while Datadog would still take it."
  }

  assert {
    condition     = local.alarms.files-waiting.above < 2 * aws_sqs_queue.stats.visibility_timeout_seconds
    error_message = "SQS leaves a message out of the queue's age from its third receive on."
  }

  assert {
    condition = aws_lambda_function.metric_submit.environment[0].variables == tomap({
      CONSTANT_TAGS      = "env:prod,team:data"
      DATADOG_API_KEY    = "X"
      DATADOG_HOST       = "https://api.us5.datadoghq.com"
      MAX_AGE_SECONDS    = "0"
      REJECTED_QUEUE_URL = "https://sqs/rejected"
      STATS_PREFIX       = "jobs/of/mine/"
    })
    error_message = "Each setting reaches the submitter; a key that isn't given leaves no variable behind."
  }

  assert {
    condition     = aws_lambda_function.mock_datasource[0].environment[0].variables.STATS_PREFIX == "jobs/of/mine/" && aws_s3_bucket_notification.stats.queue[0].filter_prefix == "jobs/of/mine/"
    error_message = "The generator, the notification and the submitter speak of the same folder."
  }

  assert {
    condition     = aws_s3_bucket_lifecycle_configuration.stats.rule[0].expiration[0].days == 15 && aws_s3_bucket_lifecycle_configuration.stats.rule[1].abort_incomplete_multipart_upload[0].days_after_initiation == 1
    error_message = "Files and incomplete uploads expire."
  }

  assert {
    condition     = aws_cloudwatch_log_group.metric_submit.retention_in_days == 365 && aws_cloudwatch_log_group.mock_datasource[0].retention_in_days == 365
    error_message = "Both functions' logs are kept for as long as was asked."
  }

  assert {
    condition     = aws_lambda_event_source_mapping.metric_submit.scaling_config[0].maximum_concurrency == 1000 && aws_lambda_function.metric_submit.memory_size == 1024
    error_message = "Concurrency and memory are as asked."
  }

  assert {
    condition     = aws_sns_topic_subscription.alarm_email[0].endpoint == "oncall@example.com"
    error_message = "Alarms are mailed to alarm_email."
  }

  assert {
    condition     = aws_cloudwatch_metric_alarm.nothing_submitted[0].period == 7200
    error_message = "The silence alarm waits for the schedule."
  }

  assert {
    condition     = !aws_s3_bucket.stats.force_destroy
    error_message = "force_destroy = false keeps the files."
  }
}

run "every_name_begins_with_name" {
  command = plan

  variables {
    name = "other"
  }

  assert {
    condition = alltrue([for name in concat(
      [aws_s3_bucket.stats.bucket, aws_s3_bucket_notification.stats.queue[0].id],
      [aws_sqs_queue.stats.name, aws_sqs_queue.dead_letter.name, aws_sqs_queue.rejected.name],
      [aws_lambda_function.metric_submit.function_name, aws_lambda_function.mock_datasource[0].function_name],
      [aws_iam_role.metric_submit.name, aws_iam_role.mock_datasource[0].name],
      [aws_iam_role_policy.metric_submit.name, aws_iam_role_policy.mock_datasource[0].name],
      [aws_cloudwatch_event_rule.mock_schedule[0].name, aws_cloudwatch_event_target.mock_schedule[0].target_id, aws_lambda_permission.mock_schedule[0].statement_id],
      [aws_sns_topic.alarms.name, aws_cloudwatch_dashboard.pipeline.dashboard_name],
      [for alarm in aws_cloudwatch_metric_alarm.pipeline : alarm.alarm_name], aws_cloudwatch_metric_alarm.nothing_submitted[*].alarm_name,
      [for group in [aws_cloudwatch_log_group.metric_submit, aws_cloudwatch_log_group.mock_datasource[0]] : trimprefix(group.name, "/aws/lambda/")],
    ) : startswith(name, "other-")])
    error_message = "Two stacks with two names share nothing: every name begins with var.name (a log group's after Lambda's own /aws/lambda/)."
  }
}

run "generator_off" {
  command = plan

  variables {
    mock_datasource_enabled = false
  }

  assert {
    condition = alltrue([for made in [
      aws_cloudwatch_event_rule.mock_schedule, aws_cloudwatch_event_target.mock_schedule, aws_cloudwatch_log_group.mock_datasource,
      aws_iam_role.mock_datasource, aws_iam_role_policy.mock_datasource, aws_lambda_function.mock_datasource,
      aws_lambda_function_event_invoke_config.mock_datasource, aws_lambda_permission.mock_schedule,
    ] : length(made) == 0])
    error_message = "Nothing of the generator is made."
  }

  assert {
    condition     = length(aws_cloudwatch_metric_alarm.nothing_submitted) == 0 && length(aws_cloudwatch_metric_alarm.pipeline) == 8
    error_message = "Without the generator silence is no alarm."
  }

  assert {
    condition     = output.function_names.mock_datasource == null && output.log_groups.mock_datasource == null
    error_message = "The outputs say that it isn't there."
  }
}

run "cron_schedule" {
  command = plan

  variables {
    mock_schedule = "cron(0 8 * * ? *)"
  }

  assert {
    condition     = aws_cloudwatch_metric_alarm.nothing_submitted[0].period == 86400
    error_message = "A cron expression runs once a day or more often."
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
    condition = aws_lambda_function.metric_submit.environment[0].variables == tomap({
      CONSTANT_TAGS              = ""
      DATADOG_API_KEY_SECRET_ARN = "arn:aws:secretsmanager:us-east-1:123456789012:secret:datadog-AbCdEf"
      DATADOG_HOST               = "https://api.datadoghq.com"
      MAX_AGE_SECONDS            = "3600"
      REJECTED_QUEUE_URL         = "https://sqs/rejected"
      STATS_PREFIX               = "stats/"
    })
    error_message = "The submitter is told where the key is, and not the key."
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

run "application_key_alone" {
  command = plan

  variables {
    ddg_api_key = null
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
