output "bucket" {
  description = "Name of the stack's own bucket, which jobs write stats files to. Null without one."
  value       = one(aws_s3_bucket.stats[*].bucket)

  depends_on = [aws_s3_bucket_notification.stats] # whoever reads the name may write at once
}

output "prefix" {
  description = "Folder of the stack's own bucket that jobs write to. The folder below it names the job. Null without the bucket."
  value       = var.create_bucket ? var.stats_prefix : null
}

output "upload_command" {
  description = "Command that uploads a first file. Paste it into a shell: seconds later Datadog has my.first.metric{job:my-job}."
  value       = <<-EOT
    printf '{"timestamp": %d, "my.first.metric": 42}' "$(date +%s)" | aws s3 cp - "s3://${local.first_bucket}/${local.prefixes[local.first_bucket]}my-job/$(date +%s).json" --region ${local.region}
  EOT

  depends_on = [aws_s3_bucket_notification.stats, aws_cloudwatch_event_target.bucket, aws_sns_topic_subscription.bucket]
}

output "queue_urls" {
  description = "URLs of the queues: stats (files to submit), dead_letter (files that failed for too long) and rejected (refused files, with the reasons)."
  value = {
    stats       = aws_sqs_queue.stats.url
    dead_letter = aws_sqs_queue.dead_letter.url
    rejected    = aws_sqs_queue.rejected.url
  }
}

output "queue_arn" {
  description = "ARN of the stats queue. Use it in the notification configuration of a bucket with notify = \"s3\"."
  value       = aws_sqs_queue.stats.arn

  depends_on = [aws_sqs_queue_policy.stats, aws_lambda_function.metric_submit] # S3 may send then, and the submitter reads the queue
}

output "bucket_steps" {
  description = "Steps for the owner of each of `buckets`, null if there is nothing to do: `notify` (commands that connect the bucket to the stack), `bucket_policy` and `key_policy` (statements to add if the bucket or its key is in another account), and `producer_policy` (for a job's role: allows writing below the prefix)."
  value = {
    for bucket, policy in local.producer_policies : bucket => {
      notify          = try(coalesce(join("", [for steps in [local.notification_steps, local.forwarding_steps, local.topic_steps] : try(steps[bucket], "")])), null)
      bucket_policy   = try(jsonencode(local.bucket_statements[bucket]), null)
      key_policy      = try(jsonencode(local.key_statements[bucket]), null)
      producer_policy = jsonencode(policy)
    }
  }

  depends_on = [aws_cloudwatch_event_target.bucket, aws_sqs_queue_policy.stats, aws_lambda_function.metric_submit] # an event before them is lost
}

output "function_names" {
  description = "Names of the Lambda functions: metric_submit, mock_datasource (the generator) and heartbeat. Null if a function doesn't exist."
  value = {
    metric_submit   = aws_lambda_function.metric_submit.function_name
    mock_datasource = local.generates ? aws_lambda_function.mock_datasource[0].function_name : null
    heartbeat       = local.beats ? aws_lambda_function.mock_datasource[0].function_name : null
  }
}

output "log_groups" {
  description = "Log groups of the functions. To follow one, run `aws logs tail --follow NAME`."
  value = {
    metric_submit   = aws_cloudwatch_log_group.metric_submit.name
    mock_datasource = local.generates ? aws_cloudwatch_log_group.mock_datasource[0].name : null
    heartbeat       = local.beats ? aws_cloudwatch_log_group.mock_datasource[0].name : null
  }
}

output "schedule_rule" {
  description = "Name of the EventBridge rule that runs the generator or the heartbeat. Null if neither runs."
  value       = one(aws_cloudwatch_event_rule.mock_schedule[*].name)
}

output "watched_jobs" {
  description = "Jobs with an alarm for their silence, each with its silent_after_hours."
  value       = local.silent_after_hours
}

output "alarm_names" {
  description = "Names of the CloudWatch alarms. Each alarm's description says what to do first."
  value       = sort(local.alarm_names)
}

output "alarm_topic_arn" {
  description = "ARN of the alarms' SNS topic. Subscribe your pager or chat to it."
  value       = aws_sns_topic.alarms.arn
}

output "dashboard_url" {
  description = "Address of the CloudWatch dashboard that shows the pipeline's health."
  value       = "https://${local.region}.${local.console}/cloudwatch/home?region=${local.region}#dashboards/dashboard/${aws_cloudwatch_dashboard.pipeline.dashboard_name}"
}

output "producer_policy_json" {
  description = "IAM policy for a job's role. It allows writing below the prefix of the stack's own bucket, and nothing else. Null without the bucket."
  value       = var.create_bucket ? data.aws_iam_policy_document.producer.json : null

  depends_on = [aws_s3_bucket_notification.stats]
}

output "kms_key_statements" {
  description = "Statements, as a JSON list, to add to the policy of the key in `kms_key_arn`. They allow the functions, the services that send to the queues and the topic, and CloudWatch Logs to use the key."
  value       = jsonencode(local.kms_key_statements)
}
