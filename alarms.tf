# The alarms, and the topic that they go to.

locals {
  functions = merge(
    { metric-submit = aws_lambda_function.metric_submit.function_name },
    { for function in aws_lambda_function.mock_datasource : "mock-datasource" => function.function_name },
  )

  # Dead letters have spent up to 4 days in the main queue, and their age in the metric starts anew when
  # they are moved. So after 10 days the oldest may be at the end of its 14.
  ten_days = 864000 # seconds

  # SQS leaves a message out of the queue's age once it has been received three times. The threshold
  # stays below two visibility timeouts, or no outage would reach it.
  waiting_seconds = 300 + var.batch_window

  alarms = merge(
    {
      files-rejected = {
        namespace   = "AWS/SQS"
        metric      = "ApproximateNumberOfMessagesVisible"
        dimensions  = { QueueName = aws_sqs_queue.rejected.name }
        statistic   = "Maximum"
        above       = 0
        period      = 60
        periods     = 1
        description = "Files were refused, and their messages are kept in the queue ${aws_sqs_queue.rejected.name}. First read the reasons (ddg-ops rejected list): each says what is wrong in the file, where, and what to do. Then correct the job, and submit the files again (docs/operations.md)."
      }

      dead-letters = {
        namespace   = "AWS/SQS"
        metric      = "ApproximateNumberOfMessagesVisible"
        dimensions  = { QueueName = aws_sqs_queue.dead_letter.name }
        statistic   = "Maximum"
        above       = 0
        period      = 60
        periods     = 1
        description = "Files could not be submitted in ${local.max_receive_count} tries, or EventBridge could not deliver their events. They wait in the queue ${aws_sqs_queue.dead_letter.name}. First read why they were retried, in the log group ${aws_cloudwatch_log_group.metric_submit.name}. Once the cause is gone, move the messages back to ${aws_sqs_queue.stats.name} (ddg-ops dead replay)."
      }

      rejected-expiring = {
        namespace   = "AWS/SQS"
        metric      = "ApproximateAgeOfOldestMessage"
        dimensions  = { QueueName = aws_sqs_queue.rejected.name }
        statistic   = "Maximum"
        above       = local.ten_days
        period      = 300
        periods     = 1
        description = "The oldest refused file has been in the queue ${aws_sqs_queue.rejected.name} for over 10 days; SQS deletes it after 14. First save the messages that you still need (ddg-ops rejected save), then discard the rest (ddg-ops rejected discard)."
      }

      dead-letters-expiring = {
        namespace   = "AWS/SQS"
        metric      = "ApproximateAgeOfOldestMessage"
        dimensions  = { QueueName = aws_sqs_queue.dead_letter.name }
        statistic   = "Maximum"
        above       = local.ten_days
        period      = 300
        periods     = 1
        description = "The oldest dead letter has been in the queue ${aws_sqs_queue.dead_letter.name} for over 10 days; SQS deletes it 14 days after it was first sent. First save the messages (ddg-ops dead save), or move them back to ${aws_sqs_queue.stats.name} (ddg-ops dead replay)."
      }

      files-waiting = {
        namespace   = "AWS/SQS"
        metric      = "ApproximateAgeOfOldestMessage"
        dimensions  = { QueueName = aws_sqs_queue.stats.name }
        statistic   = "Maximum"
        above       = local.waiting_seconds
        period      = 60
        periods     = 3
        description = "A file has waited for over ${local.waiting_seconds} seconds in the queue ${aws_sqs_queue.stats.name}. After an hour it is refused, because Datadog would drop its points. First see whether files-retried or an errors alarm is on too: if so, start there. Otherwise run ddg-ops check. If it finds no fault, files arrive faster than they are submitted: raise maximum_concurrency, then batch_size (docs/scaling.md)."
      }

      files-retried = {
        namespace   = "DatadogStats"
        metric      = "Retried"
        dimensions  = { FunctionName = aws_lambda_function.metric_submit.function_name }
        statistic   = "Sum"
        above       = 0
        period      = 300
        periods     = 3
        description = "Files have been retried for 15 minutes, because the key or site is wrong (401, 403), Datadog is down, or AWS denies access. No file is lost. First read why, in the log group ${aws_cloudwatch_log_group.metric_submit.name} (ddg-ops tail). If Datadog answers 401 or 403, check the key and ddg_site. If it answers something else or not at all, see status.datadoghq.com. If AWS denies access, run terraform apply."
      }
    },
    {
      for function, name in local.functions : "${function}-errors" => {
        namespace   = "AWS/Lambda"
        metric      = "Errors"
        dimensions  = { FunctionName = name }
        statistic   = "Sum"
        above       = 0
        period      = 300
        periods     = 1
        description = "The function ${name} failed or ran out of time. First read the last error in the log group /aws/lambda/${name}. If it names a missing or malformed setting, run terraform apply. Otherwise see docs/operations.md."
      }
    },
    {
      for function, name in local.functions : "${function}-throttles" => {
        namespace   = "AWS/Lambda"
        metric      = "Throttles"
        dimensions  = { FunctionName = name }
        statistic   = "Sum"
        above       = 0
        period      = 300
        periods     = 1
        description = "AWS did not start the function ${name}, because the account's concurrency is used up. First look at the account's limit (Service Quotas, Lambda, Concurrent executions: 10 in a new account) and ask for more, or lower maximum_concurrency. Files wait meanwhile."
      }
    },
  )

  silence_alarm = "${var.name}-nothing-submitted"
  alarm_names = concat(
    [for alarm in keys(local.alarms) : "${var.name}-${alarm}"],
    local.mock_datasource_count == 1 ? [local.silence_alarm] : [],
    [for job in keys(local.silent_after_hours) : "${local.job_alarms}${job}"],
  )
  job_alarms = "${var.name}-job-silent-"
  alarm_arn  = "arn:${local.partition}:cloudwatch:${local.region}:${local.account}:alarm:"
}

# Never under alias/aws/sns: CloudWatch may not use that key, and the alarms would go nowhere.
resource "aws_sns_topic" "alarms" {
  name              = "${var.name}-alarms"
  kms_master_key_id = var.kms_key_arn
  tags              = var.tags
}

resource "aws_sns_topic_policy" "alarms" {
  arn    = aws_sns_topic.alarms.arn
  policy = data.aws_iam_policy_document.alarm_topic.json
}

resource "aws_sns_topic_subscription" "alarm_email" {
  count = var.alarm_email == null ? 0 : 1

  topic_arn = aws_sns_topic.alarms.arn
  protocol  = "email"
  endpoint  = var.alarm_email
}

resource "aws_cloudwatch_metric_alarm" "pipeline" {
  for_each = local.alarms

  alarm_name          = "${var.name}-${each.key}"
  alarm_description   = each.value.description
  namespace           = each.value.namespace
  metric_name         = each.value.metric
  dimensions          = each.value.dimensions
  statistic           = each.value.statistic
  comparison_operator = "GreaterThanThreshold"
  threshold           = each.value.above
  period              = each.value.period
  evaluation_periods  = each.value.periods
  treat_missing_data  = "notBreaching"                    # idle queues and functions report nothing
  alarm_actions       = [aws_sns_topic_policy.alarms.arn] # the topic, once it takes what the alarm sends
  ok_actions          = [aws_sns_topic_policy.alarms.arn]
  tags                = var.tags
}

resource "aws_cloudwatch_metric_alarm" "nothing_submitted" {
  count = local.mock_datasource_count

  alarm_name          = local.silence_alarm
  alarm_description   = "${aws_lambda_function.mock_datasource[0].function_name} writes files of the job ${local.scheduled_job} (${local.schedule}), but none has been submitted to Datadog for three periods. Right after the first apply that is normal for a while. First run ddg-ops check --canary, which follows a file and says where it got stuck. Often somebody has overwritten the bucket's notification: run terraform apply, then ddg-ops backfill."
  namespace           = "DatadogStats"
  metric_name         = "Submitted"
  dimensions          = { FunctionName = aws_lambda_function.metric_submit.function_name, Job = local.scheduled_job }
  statistic           = "Sum"
  comparison_operator = "LessThanThreshold"
  threshold           = 1
  period              = max(300, local.schedule_seconds)
  evaluation_periods  = 3
  treat_missing_data  = "breaching" # no metric at all is what this alarm is for
  alarm_actions       = [aws_sns_topic_policy.alarms.arn]
  ok_actions          = [aws_sns_topic_policy.alarms.arn]
  tags                = var.tags

  depends_on = [aws_cloudwatch_event_target.mock_schedule] # silence before the first run says nothing
}

resource "aws_cloudwatch_metric_alarm" "job_silent" {
  for_each = local.silent_after_hours

  alarm_name          = "${local.job_alarms}${each.key}"
  alarm_description   = "No file of the job ${each.key} has been submitted to Datadog for ${each.value} hours. For a new job the alarm is on until its first file. First run ddg-ops jobs to see when the last file arrived. If there is no new file, look at the job. If there is one, it was refused (ddg-ops rejected list), is being retried (ddg-ops tail), or the stack was not notified of it (ddg-ops check --canary)."
  comparison_operator = "LessThanThreshold"
  threshold           = 1
  evaluation_periods  = each.value
  treat_missing_data  = "breaching" # as long as there has never been a file
  alarm_actions       = [aws_sns_topic_policy.alarms.arn]
  ok_actions          = [aws_sns_topic_policy.alarms.arn]
  tags                = var.tags

  # An hour without files has no data. FILL makes it 0; without, CloudWatch would look further back.
  metric_query {
    id          = "filled"
    expression  = "FILL(submitted, 0)"
    label       = "Files submitted an hour"
    return_data = true
  }

  metric_query {
    id = "submitted"

    metric {
      namespace   = "DatadogStats"
      metric_name = "Submitted"
      dimensions  = { FunctionName = aws_lambda_function.metric_submit.function_name, Job = each.key }
      period      = 3600
      stat        = "Sum"
    }
  }
}
